from tests.runtime.conftest import images, play  # noqa: F401
