"""Games: who plays, in which turns, and what each turn minimises."""

from bigtrain.games.adversarial import AdversarialGame
from bigtrain.games.auxiliary import AuxiliaryClassifierGame
from bigtrain.games.base import Game
from bigtrain.games.player import Player

__all__ = ["AdversarialGame", "AuxiliaryClassifierGame", "Game", "Player"]
