"""Published recipes: one paper, one file with a `METHOD` card. Discovery finds them; no list names them."""
