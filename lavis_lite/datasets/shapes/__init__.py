"""Drawn worlds: scenes of coloured shapes that are rendered, captioned, and whose truth is known.

=============  ============================================================
``scene``      what there is to see, and how a scene is drawn by lot
``render``     a scene as an image
``lexicon``    the words for all that
``grammar``    a scene in sentences
``truth``      what a caption claims, and whether that is so
``write``      a whole data set in the layout of COCO's Karpathy split
=============  ============================================================
"""
