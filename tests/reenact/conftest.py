"""The small avatar and track of the render tests."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

spec = spec_from_file_location(
    "render_conftest", Path(__file__).parents[1] / "render" / "conftest.py"
)
render_conftest = module_from_spec(spec)
spec.loader.exec_module(render_conftest)
person = render_conftest.person
