"""
Plug-ins of fine-tuning frameworks: `ms_swift`, a file for `--external_plugins`, and `llamafactory`, which starts that
framework with OmniVinci registered. Neither framework is imported before a plug-in is.

    python -m transformers_omnivinci.integrations         prints the folder that the files are in
"""
