"""Packaging: every field is read from settings.ini, so nothing is written twice."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

config = ConfigParser(delimiters=["="])
config.read(Path(__file__).parent / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    keywords=settings["keywords"].split(),
    author=settings["author"],
    author_email=settings["author_email"],
    license="Apache-2.0",
    url=settings["git_url"],
    classifiers=["Intended Audience :: Education", "Programming Language :: Python :: 3",
                 "Topic :: Scientific/Engineering :: Artificial Intelligence"],
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    packages=find_packages(include=["pixcl_nb", "pixcl_nb.*"]),
    include_package_data=True,
    install_requires=settings["requirements"].split(),
    extras_require={"imagenet": settings["imagenet_requirements"].split(),
                    "dev": settings["dev_requirements"].split() + settings["imagenet_requirements"].split()},
    python_requires=">=" + settings["min_python"],
    entry_points={"console_scripts": settings["console_scripts"].split(),
                  "nbdev": [f"{settings['lib_name']}={settings['lib_name']}._modidx:d"]},
    zip_safe=False,
)
