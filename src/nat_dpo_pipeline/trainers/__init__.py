"""From a dataset of pairs to a trained model: back ends, and waiting for their jobs."""
