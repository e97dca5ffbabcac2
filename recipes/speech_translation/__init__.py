"""Speech to translated text: CoVoST 2's files, and BLEU (paper, appendix B.3)."""
