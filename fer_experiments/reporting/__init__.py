"""What people read: figures, pages, cards, notes, tables. Gives text and Figures, saves nothing."""
