"""What takes long and is done once: here, a table of squares."""

for number in range(1, 101):
    print(f"{number},{number * number}")
