"""What lies in the lungs: vessels, nodules, cavities, the grain of the noise; may import base, io, lungs."""
