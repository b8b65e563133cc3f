"""Names for runs whose file gives none: two words that are easy to say and to type."""

from __future__ import annotations

_ADJECTIVES = (
    "able amber brave brief bright brisk calm clear clever cosy crisp curly dapper deep eager "
    "early easy fair fine fleet fond fresh frosty gentle glad golden good grand green happy "
    "hardy humble ideal jolly keen kind lively loud lucky mellow merry mighty mild misty "
    "modest neat nimble noble odd open patient plain polite proud quick quiet rapid rare "
    "ready round royal sharp shiny silent silver simple sleek smart smooth snug soft solid "
    "spry steady stout sunny sweet swift tidy tiny true vivid warm wary wide wild wise witty "
    "young zesty"
)

_NOUNS = (
    "ant badger bat bear beaver bee bird bison boar bream buck camel carp cat cod colt coot "
    "crab crane cricket crow deer dingo dove duck eagle eel egret elk emu falcon fawn ferret "
    "finch fox frog gecko goat goose grouse gull hare hawk hen heron horse ibex ibis jackal "
    "jay kite kiwi koala lamb lark lemur lion lizard llama lynx magpie marten mink mole moose "
    "moth mouse mule newt ocelot orca otter owl ox panda parrot perch pike pony puffin puma "
    "quail rabbit ram raven robin salmon seal shark sheep shrew skunk sloth snail snipe sole "
    "sparrow squid stoat stork swan swift tapir teal tern tiger toad trout turtle viper vole "
    "walrus wasp weasel whale wolf wombat wren yak zebra"
)


def two_words(number: int) -> str:
    """A name out of two words, picked by `number` (any non-negative integer)."""
    adjectives, nouns = _ADJECTIVES.split(), _NOUNS.split()
    adjective = adjectives[number % len(adjectives)]
    noun = nouns[(number // len(adjectives)) % len(nouns)]
    return f"{adjective}-{noun}"
