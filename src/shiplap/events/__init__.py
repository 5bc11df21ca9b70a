"""TELLS: typed facts and who shows them: plain, terminal, rawjson."""
