"""The twelve recipes that both sides of the speed comparison train."""

from itertools import product

from nutclf.config import Recipe

EPOCHS = 9
RECIPES = [
    Recipe(n_unfrozen=depth, dropout_rate=rate, epochs=EPOCHS, lr_schedule=schedule)
    for depth, rate, schedule in product((0, 4, 29), (0.3, 0.5), ("constant", "plateau"))
]
