"""What the review page is made of.

:mod:`assets.review.content` gathers what it shows, :mod:`assets.review.pictures` makes thumbnails
and clips that a browser plays, :mod:`assets.review.html` puts it all into one file. What the page
does is in ``page/``: markup, style and scripts, without a library. The asset itself is
:mod:`assets.review_page`.
"""
