"""Sphinx settings. `make docs` builds without the network."""

import skl_softmax

project = "skl_softmax"
author = "The skl_softmax developers"
version = release = skl_softmax.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "matplotlib.sphinxext.plot_directive",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates", "sg_execution_times.rst", "gallery/sg_execution_times.rst"]
templates_path = ["_templates"]
default_role = "obj"
smartquotes = False  # quotes mark strings of code
toc_object_entries_show_parents = "hide"
myst_heading_anchors = 2
suppress_warnings = ["config.cache"]  # the gallery's settings hold a class

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

plot_include_source = True
plot_html_show_formats = False
plot_html_show_source_link = False
plot_formats = [("png", 100)]


class ReadingOrder:
    """Examples in the order in which one may want to read them; what is not named comes last."""

    names = (
        "iris_pipeline",
        "from_logistic_regression",
        "odds_ratios",
        "text_classification",
        "linear_probe",
        "soft_labels",
        "early_stopping",
        "streaming",
        "row_blocks",
        "dask_cluster",
    )

    def __init__(self, folder):
        pass

    def __call__(self, file):
        name = file.removesuffix(".py")
        return self.names.index(name) if name in self.names else len(self.names)


sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": ReadingOrder,
    "doc_module": ("skl_softmax",),
    "backreferences_dir": "gallery/backreferences",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 10**6,
    "remove_config_comments": True,
    "plot_gallery": "True",
}

html_theme = "pydata_sphinx_theme"
html_title = "skl_softmax"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_show_sourcelink = False
html_theme_options = {
    "navigation_depth": 2,
    "show_toc_level": 2,
    "secondary_sidebar_items": {"**": ["page-toc"], "benchmarks": []},  # whose tables are wide
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "benchmarks": [], "changelog": []}
