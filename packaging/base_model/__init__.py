"""The recipe of the demo base model, from openly licensed text to the folder that the product ships.

    make base-model CORPUS=DIR

runs `PYTHONPATH=packaging python -m base_model DIR OUT`. The package is not installed: it is a
workshop, and a folder named `packaging` with an `__init__.py` at the root of the repository would
hide the library of that name from transformers.
"""
