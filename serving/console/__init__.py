"""The analysts' console: pages over the store and the packages that are there, no logic of its own.

`app` is the way in, `visit` is what a page is given, `table` lists every page. A page is a function
of a `visit.Visit` that gives an answer; what it does is done elsewhere.
"""
