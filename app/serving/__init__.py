"""The model behind the page: what a visitor may ask of it, and what it answers. No gradio in here."""
