"""The rooms at the top of the repository, as packages of ``invariscope``; everything else stands in pyproject.toml."""

from setuptools import find_packages, setup

ROOMS = ("zoo", "collectors", "analysis")
"""Folders of code at the top of the repository that are imported as ``invariscope.<folder>``."""

packages = find_packages(include=["invariscope", "invariscope.*"])
packages += [f"invariscope.{name}" for room in ROOMS for name in find_packages(include=[room, f"{room}.*"])]

setup(
    packages=[*packages, "invariscope.data"],
    package_dir={f"invariscope.{room}": room for room in (*ROOMS, "data")},
    package_data={
        "invariscope": ["py.typed"],
        "invariscope.analysis.report": ["page.html", "page.css", "*.js"],
        "invariscope.data": ["README.md", "zoo/*", "zoo_segmentation/*", "recipes/*"],
    },
    include_package_data=False,
)
