#![doc = "Ribera."]
