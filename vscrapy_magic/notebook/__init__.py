"""The Jupyter side: magics, panel and debugger; the only importer of IPython and ipywidgets."""
