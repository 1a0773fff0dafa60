"""Drawn worlds: scenes of coloured shapes that are rendered, captioned, and whose truth is known.

=================  ============================================================
``scene``          what there is to see, and how a scene is drawn by lot
``render``         a scene as an image
``lexicon``        the words for all that
``grammar``        a scene in sentences
``truth``          what a caption claims, and whether that is so
``classes``        the kinds of things, as labels
``questions``      questions about a scene, and their answers
``statements``     sentences about two scenes, true or false
``web_noise``      captions as bad as the web's
``animate``        scenes that move
``write``          captions in the layout of COCO's Karpathy split
``write_<name>``   the other data sets, each in the layout of its kind
``write_once``     what they share: aside and renamed, by one process
``write_images``   what they share: numbered scenes, drawn
=================  ============================================================
"""

from . import builders

__all__ = ["builders"]
