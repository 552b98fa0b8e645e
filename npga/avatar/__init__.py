"""The avatar: canonical Gaussians, F (forward prior), G (detail), light and the refiner (a CNN)."""

from npga.avatar.avatar import Avatar as Avatar
from npga.avatar.field import ForwardField as ForwardField
from npga.avatar.forward import ForwardPrior as ForwardPrior
from npga.avatar.forward import load_prior as load_prior
from npga.avatar.forward import save_prior as save_prior
from npga.avatar.store import AVATAR_FILE as AVATAR_FILE
from npga.avatar.store import avatar_file as avatar_file
from npga.avatar.store import load_avatar as load_avatar
from npga.avatar.store import save_avatar as save_avatar
from npga.avatar.types import AvatarSizes as AvatarSizes
from npga.avatar.types import CanonicalPoints as CanonicalPoints
from npga.avatar.types import ExpressionStats as ExpressionStats
from npga.avatar.types import Posed as Posed
