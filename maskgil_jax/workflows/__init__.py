"""What commands do that takes several parts of the package."""
