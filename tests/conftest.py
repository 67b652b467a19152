"""What all tests share."""

import torch

torch.set_num_threads(1)  # tiny networks are faster so, and tests beside each other do not wait for each other
