"""Real database servers, started on private ports and folders by tests, demo and benchmarks."""
