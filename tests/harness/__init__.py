"""What the integration tests stand on: servers, clients, vectors, waiting. Knows no test."""
