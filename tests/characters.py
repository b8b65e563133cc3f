"""Characters that generated text is made of.

Not `characters(codec="utf-8")`, which is hypothesis's own default: in a fresh checkout it encodes
and decodes each of the 1,114,112 there are, for two seconds.
"""

from __future__ import annotations

from hypothesis import strategies as st

ANY = st.characters(exclude_categories=["Cs"])  # all that UTF-8 can say
NO_NUL = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
