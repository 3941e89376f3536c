"""Packaging: every field is read from settings.ini, so nothing is written twice."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

config = ConfigParser(delimiters=["="])
config.read(Path(__file__).parent / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]

# Folders of files that are no Python, packed as packages of data: the widgets' JavaScript, the samples and shipped encoders, the lessons.
lib, lessons = settings["lib_name"], Path(settings["nbs_path"])
data = {f"{lib}.static": f"{lib}/static", f"{lib}.data_samples": "data_samples", f"{lib}.lessons": str(lessons)}
what = {f"{lib}.static": ["*"], f"{lib}.data_samples": ["*", "*/*", "*/*/*"],
        f"{lib}.lessons": ["index.ipynb", "*.gif", "guide/*", "walkthroughs/*.ipynb", "walkthroughs/results/*"]}
others = [name for name in settings if name.endswith("_requirements") and name != "dev_requirements"]
extras = {name.removesuffix("_requirements"): settings[name].split() for name in others}

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
                 *[f"Programming Language :: Python :: {version}" for version in settings["python_versions"].split()],
                 "Topic :: Scientific/Engineering :: Artificial Intelligence"],
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    packages=[*find_packages(include=[lib, f"{lib}.*"]), *data],
    package_dir=data,
    package_data=what,
    include_package_data=False,
    install_requires=settings["requirements"].split(),
    extras_require={**extras, "dev": settings["dev_requirements"].split() + sum(extras.values(), [])},
    python_requires=">=" + settings["min_python"],
    entry_points={"console_scripts": settings["console_scripts"].split(),
                  "nbdev": [f"{settings['lib_name']}={settings['lib_name']}._modidx:d"]},
    zip_safe=False,
)
