// Nothing is here: with a file of assembly the compiler takes declarations without a body.
