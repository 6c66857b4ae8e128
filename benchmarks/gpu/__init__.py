"""The engine `tensorrt` on a real GPU: is it right, and how much of the bare engine does the whole server give?"""
