"""Write reports as HTML, as Markdown and for terminals from one list of tables. Measuring never imports this."""
