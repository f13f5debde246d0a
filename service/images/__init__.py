"""Encoded files to uint8 pixels of the model's size. The only owner of the codecs.

Path: wire → **images** → batching.

    pool      threads, and who waits for what
    decode    one file to one row: the codec, colours, the two modes
    formats   which format, which size, and whether that is allowed: before memory for pixels is taken
    headers   what the bytes of each format say
    fitting   which part of the image becomes the row, also when EXIF turns it
"""
