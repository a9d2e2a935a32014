"""Letters and digits of real typefaces, 32×32, grey: how the set is made of font files, and read again.

`sets` says which classes there are, `fonts` what a font file says of itself, `drawing` turns glyphs into images,
`choosing` drops the fonts that cannot serve, `making` puts the set together, and `stored` keeps it in one file.
"""
