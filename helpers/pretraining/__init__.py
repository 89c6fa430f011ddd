"""How the embedded base model is made: invented people, generated chats, a tokenizer and a training loop."""
