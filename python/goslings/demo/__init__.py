"""Programs that show goslings at work: `goslings demo feeds` is the first.

`feeds.refresh` is what to read: a feed reader with goroutines and channels. The rest is around
it: pages (`feed_page`), their items (`feed_item`), the store (`feed_store`), the other ways of
reading (`feed_modes`), the measurement (`feed_run`, `feed_child`, `feed_memory`), the local
server (`feed_site`, `feed_document`, `feed_format`, `feed_words`), and the command line
(`feed_options`, `feed_input`, `feed_report`).
"""
