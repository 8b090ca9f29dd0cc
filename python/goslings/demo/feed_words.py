"""The words of the demo's feeds: titles, sentences and HTML articles, the same for the same seed.

What feedparser spends its time on is markup, not length: every entity, link and attribute goes
through its sanitiser. So the articles look like what blog software writes: paragraphs with
links and emphasis, images with a dozen attributes, lists, quotes, tables, code, and now and
then a script or an `onclick` that the sanitiser has to take out.
"""

from random import Random


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NOUNS = _words(
    "kernel compiler garden bridge harbour library ticket river season archive engine protocol recipe "
    "museum market sensor orchestra treaty glacier bicycle budget satellite novel vaccine railway "
    "festival database lantern parliament telescope bakery algorithm volcano theatre"
)
VERBS = _words(
    "reaches rewrites opens measures closes explains forgets repairs doubles follows replaces survives "
    "questions maps borrows paints outgrows delays"
)
ADJECTIVES = _words(
    "quiet second broken early northern forgotten careful cheaper unlikely tiny old public distant "
    "faster borrowed seasonal naïve façade-like"
)
JOINTS = _words("and but while because although after where until")
TOPICS = _words("science travel politics code music food weather sport books cities")
PEOPLE = ("Ada Núñez", "Bo Lindström", "Chiara Rossi", "Dev Patel", "Émile Roux", "Grace Ōta")


class Writer:
    """Writes one site's texts; two writers with the same seed write the same."""

    def __init__(self, seed: str, home: str) -> None:
        self._random = Random(seed)
        self._home = home

    def person(self) -> str:
        return self._random.choice(PEOPLE)

    def topic(self) -> str:
        return self._random.choice(TOPICS)

    def title(self) -> str:
        r = self._random
        text = f"the {r.choice(ADJECTIVES)} {r.choice(NOUNS)} {r.choice(VERBS)} the {r.choice(NOUNS)}"
        return text.capitalize()

    def sentence(self) -> str:
        r = self._random
        clauses = [
            f"the {r.choice(ADJECTIVES)} {r.choice(NOUNS)} {r.choice(VERBS)} a {r.choice(ADJECTIVES)} {r.choice(NOUNS)}"
            for _ in range(r.randint(1, 3))
        ]
        text = f" {r.choice(JOINTS)} ".join(clauses)
        return text[0].upper() + text[1:] + r.choice((".", ".", ".", "?", " & more."))

    def article(self, blocks: int) -> str:
        """HTML of so many blocks, well-formed, with `&` and `<` in texts escaped."""
        parts = [self._paragraph()]
        makers = (
            self._paragraph, self._paragraph, self._paragraph, self._paragraph,
            self._list, self._quote, self._figure, self._table, self._code, self._tracker,
        )  # fmt: skip
        parts += [self._random.choice(makers)() for _ in range(blocks - 1)]
        return "\n".join(parts)

    def _text(self) -> str:
        return self.sentence().replace("&", "&amp;")

    def _paragraph(self) -> str:
        r = self._random
        spans = []
        for _ in range(r.randint(2, 5)):
            text = self._text()
            match r.randrange(6):
                case 0:
                    text = f'<a href="/{r.choice(TOPICS)}/{r.randrange(9999)}?a=1&amp;b=2">{text}</a>'
                case 1:
                    text = f"<em>{text}</em>"
                case 2:
                    text = f'<strong class="lead">{text}</strong>'
            spans.append(text)
        return f'<p style="margin: 1em; color: #333">{" ".join(spans)}</p>'

    def _list(self) -> str:
        items = "".join(f"<li>{self._text()}</li>" for _ in range(self._random.randint(2, 5)))
        return f"<ul>{items}</ul>"

    def _quote(self) -> str:
        text = f"{self._text()}<br />{self._text()}"
        return f'<blockquote cite="{self._home}"><p>{text}</p></blockquote>'

    def _figure(self) -> str:
        number = self._random.randrange(10_000)
        return (
            f'<p><img src="/images/{number}.jpg" alt="{self.title()}" width="640" height="480" '
            f'hspace="4" vspace="4" border="0" align="left" srcset="/images/{number}-2x.jpg 2x" '
            f'loading="lazy" class="wp-image-{number}" /> {self._text()}</p>'
        )

    def _table(self) -> str:
        r = self._random
        rows = "".join(f"<tr><td>{r.choice(NOUNS)}</td><td>{r.randrange(1000)}</td></tr>" for _ in range(3))
        return f'<table border="1"><tr><th>what</th><th>how many</th></tr>{rows}</table>'

    def _code(self) -> str:
        noun = self._random.choice(NOUNS)
        return f"<pre><code>if {noun} &lt; 3 &amp;&amp; ready:\n    {noun} += 1</code></pre>"

    def _tracker(self) -> str:
        return f'<p onclick="track()">{self._text()} <script src="/t.js">/* taken out by the sanitiser */</script></p>'
