"""The whole method on real images in a few minutes: data, recipe, story and report of `make demo`."""
