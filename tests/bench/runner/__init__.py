"""Benchmarks of Ribera beside its peers. Standard library only; peers live in a venv."""
