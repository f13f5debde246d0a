"""The batching simulator: traces of arrivals, models of devices, and the policies that are compared on them."""
