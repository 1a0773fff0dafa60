"""Drawn data sets: scenes of colored shapes whose true captions, answers and labels are known.

A plug-in: a run file names this folder under ``imports``, a command with ``--import``.

===================  ==============================================================
``builders``         the data sets, as they are registered
``scene``            what a scene contains, drawn from a random generator
``render``           a scene as an image; ``animate``, ``avi``: as a video
``lexicon``          the words for colors, shapes, sizes and positions
``grammar``          a scene as sentences
``truth``            what a caption claims, and whether the scene agrees
``classes``          kinds of scenes, as labels
``questions``        questions about a scene, and their answers
``statements``       sentences about two scenes, true or false
``web_noise``        captions with the errors of captions from the web
``write_<layout>``   writes a data set in the layout of its kind
``write_once``       writes a folder whole or not at all, by one process
``pictures``         the numbered scenes of each split, and their images
``judge``            compares what CapFilt kept with the truth (a script)
===================  ==============================================================
"""

from . import builders

__all__ = ["builders"]
