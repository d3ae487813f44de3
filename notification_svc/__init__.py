"""What customers are told, and whether it reached them."""
