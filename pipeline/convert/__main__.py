"""The command python -m pipeline.convert."""

if __name__ == "__main__":  # spawned processes import this module, too
    import errors
    from pipeline.convert.command import main

    with errors.reported():
        main()
