"""NeMo Customizer of NeMo Microservices."""
