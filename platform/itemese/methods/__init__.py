"""One file, one method; see `itemese.methods.base`."""
