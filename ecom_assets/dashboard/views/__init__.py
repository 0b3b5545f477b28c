"""The pages, a module each; Streamlit runs them as scripts."""
