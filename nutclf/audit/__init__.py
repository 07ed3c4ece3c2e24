"""What is wrong with the images and their labels."""
