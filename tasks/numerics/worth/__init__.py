"""What an explanation is worth: how the score falls where pixels that it calls important are removed, beside controls.

A number of worth means nothing alone. On dark images the brightness of a pixel beats every explanation, and so each number here
is to be shown beside the same number of `controls`.

removal     the score while pixels are removed in the order of an attribution: halves of the image, whole curves
masks       removed attribution against the fall of the score over random masks, the removed brightness taken out
controls    what looks like an attribution and explains nothing
strategies  clusters of a class's explanations, and the region that sets each apart
drift       how the reasons for a class changed between two models
randomised  networks that know nothing
graft       a known answer on the night's own model
canary      a pair of networks of which one knows a mark
transplant  whether that region alone makes the class
"""
