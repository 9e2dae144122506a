"""Which loss should I train with? Train them all on the user's data, fairly, and compare.

The way of the data: a source becomes a :class:`~lossfit.compare.data.Dataset` (data), which is split again and again
(splits) and turned into matrices (features). Every candidate loss gets the same number of settings (search), trained
side by side as stacked weights (models, train) and measured (metrics). The engine runs what is missing and keeps what
is finished (engine); differences to cross-entropy are tested (stats) and summed up (summary, report).
"""
