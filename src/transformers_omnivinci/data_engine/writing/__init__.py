"""
What a run writes of its finished segments, all in one order, whichever segment came back first.

- `result_writing`: the files of an output folder, by format.
- `segment_index`, `near_duplicates`, `segment_cuts`: segments in order, those that say the same, their media.
- `chat_tables`, `shard_series`, `dataset_folder`, `web_shards`: tables of chats, and files of bounded size with media.
- `written_counts`, `data_card`, `distribution_pie`: what was written, counted, told and drawn.
"""
