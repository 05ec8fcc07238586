"""y = O(f(I(x))): the equation and the values its parts exchange. Stands on torch alone."""
