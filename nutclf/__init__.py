"""Fine-tunes ImageNet networks on tree nuts, searches the recipe, records and promotes the result."""
