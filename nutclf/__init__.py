"""Fine-tunes ImageNet networks on tree nuts, searches the recipe, keeps the best."""
